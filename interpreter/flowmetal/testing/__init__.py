"""Tools to test flows with: a simulated outside world and exhaustive crashes. Public."""

from flowmetal.testing.crash import Faults, Outcome, Program, check, run
from flowmetal.testing.world import World

__all__ = ["Faults", "Outcome", "Program", "World", "check", "run"]
