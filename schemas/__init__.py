"""The contract: document schemas, the Zarr layout in words, SQL macros and relations."""
