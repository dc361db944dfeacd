"""Clients: one interface, two ways to reach an engine (in this process, by HTTP), and how its host is found or
started.

Floor 4. Programs use `flowmetal.open`; the kernel and the command line use `discovery.connect`.
"""
