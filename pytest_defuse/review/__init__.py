"""The labelling page: a local web page for decisions and votes."""
