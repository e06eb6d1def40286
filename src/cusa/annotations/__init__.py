"""From a data set's files to the tables whose row numbers are the ids that everything later uses."""
