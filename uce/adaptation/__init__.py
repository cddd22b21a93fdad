"""A model fitted further to a user's cells: `uce adapt`."""
