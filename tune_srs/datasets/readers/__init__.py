"""Files of interactions → tables in chunks, checked: delimited text, records, Parquet."""
