package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	in := `{"Action":"build-output","ImportPath":"m/broken","Output":"broken.go:1:1: syntax error\n"}
{"Action":"build-fail","ImportPath":"m/broken"}
{"Action":"start","Package":"m/pq"}
{"Action":"run","Package":"m/pq","Test":"TestConformance"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue","Output":"=== RUN   TestConformance/queue\n"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue/a","Output":"    a_test.go:1: not to be seen\n"}
{"Action":"pass","Package":"m/pq","Test":"TestConformance/queue/a"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue/b","Output":"=== RUN   TestConformance/queue/b\n"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue/b","Output":"    b_test.go:1: lost a message\n"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue/b","Output":"--- FAIL: TestConformance/queue/b (0.00s)\n"}
{"Action":"fail","Package":"m/pq","Test":"TestConformance/queue/b"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue/c","Output":"    c_test.go:1: no server\n"}
{"Action":"output","Package":"m/pq","Test":"TestConformance/queue/c","Output":"--- SKIP: TestConformance/queue/c (0.00s)\n"}
{"Action":"skip","Package":"m/pq","Test":"TestConformance/queue/c"}
{"Action":"fail","Package":"m/pq","Test":"TestConformance/queue"}
{"Action":"fail","Package":"m/pq","Test":"TestConformance"}
{"Action":"output","Package":"m/pq","Test":"TestPanic","Output":"panic: boom\n"}
{"Action":"output","Package":"m/pq","Output":"FAIL\tm/pq\t0.1s\n"}
{"Action":"fail","Package":"m/pq"}
{"Action":"output","Package":"m/pgx","Test":"TestBoth/a","Output":"    pair_test.go:12: proved on SQLite: a: b\n"}
{"Action":"output","Package":"m/pgx","Test":"TestBoth/a","Output":"    pair_test.go:13: not proved\n"}
{"Action":"pass","Package":"m/pgx","Test":"TestBoth/a"}
{"Action":"output","Package":"m/pgx","Output":"PASS\n"}
{"Action":"output","Package":"m/pgx","Output":"ok  \tm/pgx\t0.1s\n"}
{"Action":"pass","Package":"m/pgx"}
{"Action":"output","Package":"m/none","Output":"?   \tm/none\t[no test files]\n"}
{"Action":"skip","Package":"m/none"}
`
	want := `broken.go:1:1: syntax error
    b_test.go:1: lost a message
--- FAIL: TestConformance/queue/b (0.00s)
panic: boom
FAIL	m/pq	0.1s
proved on SQLite: a: b
ok  	m/pgx	0.1s
pgqrs conformance: pq          1 passed, 1 failed, 1 skipped
	skipped: c_test.go:1: no server
`
	var out strings.Builder
	r := newReport(&out)
	if err := r.read(strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	r.summary()
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &out, want)
	}
	if !r.failed {
		t.Error("the report of a failure does not say that it failed")
	}
}

func TestReportRefusesOtherInput(t *testing.T) {
	if err := newReport(new(strings.Builder)).read(strings.NewReader("FAIL\n")); err == nil {
		t.Error("no error for input that is not JSON")
	}
}
