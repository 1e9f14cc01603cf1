"""The names of wirings.native.program, for programs that import them from here."""

from wirings.native.program import HEAD, NODES, POOL, STEM, Program, Step, Writer

__all__ = ["HEAD", "NODES", "POOL", "STEM", "Program", "Step", "Writer"]
