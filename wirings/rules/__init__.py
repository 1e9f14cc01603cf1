"""Edge rules, one file each; `wirings.rule_registry` finds them by name.

Its functions are not defined here, where the modules `set` and `str` take the names of Python's classes.
"""

from wirings.rule_registry import (
    COMMON_ARGUMENTS,
    RULES,
    build_rule,
    check_rule,
    find_rule,
    has_fixed_wiring,
    options_of,
    rule_name,
    schedule_of_rule,
)

__all__ = [
    "COMMON_ARGUMENTS",
    "RULES",
    "build_rule",
    "check_rule",
    "find_rule",
    "has_fixed_wiring",
    "options_of",
    "rule_name",
    "schedule_of_rule",
]
