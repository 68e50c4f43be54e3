"""Analysis: statistics, tables and figures from episode files alone."""
