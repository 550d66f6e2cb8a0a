//go:build !go1.27

package tap

import "database/sql/driver"

// scanned returns the rows unchanged, because database/sql scans them.
func scanned(r *rows) driver.Rows { return r }
