"""Whole experiments: several trainings, judged alike, in one table."""
