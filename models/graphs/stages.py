"""The names of wirings.stages, for programs that import them from here."""

from wirings.stages import Group, Liveness, Stage, effective_in_cycles, find_liveness

__all__ = ["Group", "Liveness", "Stage", "effective_in_cycles", "find_liveness"]
