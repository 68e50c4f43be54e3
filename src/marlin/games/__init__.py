"""Games: how four proposals become one plan."""
