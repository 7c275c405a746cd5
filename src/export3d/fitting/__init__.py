"""What is fitted before training: trackers' regressors, gaze and shape maps, the identity network."""
