package faults_test

import "testing"

type Row struct {
	Fault, Injected               string
	Runs, Messages, Lost, Doubled int
}

func Report(t *testing.T, row Row) { t.Logf("proved %+v", row) }
