"""What must not be lost: vectors already paid for, and the books. Two SQLite files in the data folder."""
