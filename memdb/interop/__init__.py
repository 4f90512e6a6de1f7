"""Import other people's runs and scores, and export a store's contents for other people's code."""
