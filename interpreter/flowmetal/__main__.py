"""`python -m flowmetal`: the command line."""

from flowmetal.cli.main import main

if __name__ == "__main__":
    main()
