"""A plan shown: in the terminal, as a page, as Markdown and as Parquet."""
