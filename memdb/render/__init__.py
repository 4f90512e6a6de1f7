"""What people and programs get to see: tables, documents, pictures, progress."""
