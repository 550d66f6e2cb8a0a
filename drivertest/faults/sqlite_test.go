package faults_test

const neighbourFile = "PGQRS_TEST_NEIGHBOUR"

func neighbour(path string) int { return 1 }
