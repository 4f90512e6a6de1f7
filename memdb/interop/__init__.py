"""Other people's files: runs and scores read into a store, and a store's contents written for their code."""
