"""Which samples are trained on: splits, folds, samplers, small parts of a data set."""
