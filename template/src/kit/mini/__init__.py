"""Small subsets of a data set."""
