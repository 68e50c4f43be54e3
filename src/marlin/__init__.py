"""MARLIN: where and when large-language-model inference should run, with evidence."""

__version__ = "0.1.0"
