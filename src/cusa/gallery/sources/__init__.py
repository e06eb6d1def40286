"""What a gallery is made of: a folder of pictures, a table, tars, Parquet files, a data set's split, or texts."""
