//go:build !go1.27

package tap

import "database/sql/driver"

// scanned returns the rows as they are: database/sql scans.
func scanned(r *rows) driver.Rows { return r }
