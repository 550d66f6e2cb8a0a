//go:build go1.27

package pgqrs

import (
	"context"
	"database/sql/driver"
	"strings"
	"testing"
)

// From Go 1.27 on database/sql lets a driver scan into the destination.
type scanningConn struct{ *minedConn }

func (c scanningConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.minedConn.QueryContext(ctx, text, args)
	return scanningRows{rows.(*minedRows)}, err
}

type scanningRows struct{ *minedRows }

func (r scanningRows) NextRow() error { return r.Next(make([]driver.Value, 1)) }

func (r scanningRows) ScanColumn(_ driver.ScanContext, _ int, into any) error {
	r.conn.pass("scan", r.text)
	*into.(*int64) = 1
	return nil
}

type scanning struct{ *mined }

func (s scanning) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.mined.Connect(ctx)
	return scanningConn{conn.(*minedConn)}, err
}

func TestDriverThatPanicsInScanColumn(t *testing.T) {
	m, s := newMinedOn(t, func(m *mined) driver.Connector { return scanning{m} }, Config{}, Postgres, "scan", "message.enqueue")
	for range 3 {
		m.armed = true
		ctx, cancel := context.WithCancel(t.Context())
		err := within(t, "the call", func() error { return enqueueOnce(ctx, s) })
		if err == nil || !strings.Contains(err.Error(), "the database driver panicked: mine at scan") {
			t.Errorf("got %v", err)
		}
		cancel()
		if err := within(t, "the next call", func() error { return enqueueOnce(t.Context(), s) }); err != nil {
			t.Errorf("after: %v", err)
		}
	}
	if m.shut != 3 {
		t.Errorf("%d connections were closed, want 3", m.shut)
	}
}
