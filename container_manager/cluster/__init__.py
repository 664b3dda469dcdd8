"""The cluster: who else is there, and what they tell each other."""
