"""SASRec and what it consists of."""
