"""Experiments as YAML: keys, files, command line, checks, and the parts that an experiment names."""

from genutil.config.resolve import Config, ConfigError, load_config, to_yaml

__all__ = ["Config", "ConfigError", "load_config", "to_yaml"]
