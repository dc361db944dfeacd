"""The command line. Floor 5: it speaks to a `Client` only; a file a command group, arguments in, text out."""
