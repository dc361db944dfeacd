"""What the notebook shows alive: a widget is a trio of Python, JavaScript and CSS, its static picture beside it."""
