"""Whole experiments: several trainings, evaluated alike, in one table."""
