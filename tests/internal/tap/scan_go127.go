//go:build go1.27

package tap

import "database/sql/driver"

// scanned returns rows that scan into destinations themselves, if the driver's rows do.
func scanned(r *rows) driver.Rows {
	if inner, ok := r.Rows.(driver.RowsColumnScanner); ok {
		return &scannedRows{r, inner}
	}
	return r
}

// A scannedRows is a cursor of a driver that scans into destinations itself.
type scannedRows struct {
	*rows
	inner driver.RowsColumnScanner
}

// NextRow implements [driver.RowsColumnScanner].
func (r *scannedRows) NextRow() error { return r.inner.NextRow() }

// ScanColumn implements [driver.RowsColumnScanner].
func (r *scannedRows) ScanColumn(ctx driver.ScanContext, index int, dest any) error {
	return r.inner.ScanColumn(ctx, index, dest)
}
