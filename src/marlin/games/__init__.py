"""Games: how four proposals become one plan, what is fair, and what is stable."""
