"""Those who make vectors. One file a provider, one SDK call each; their errors end here and ours begin."""
