package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"

	"github.com/pgqrs/pgqrs-go"

	_ "github.com/ncruces/go-sqlite3/driver" // registers "sqlite3", without cgo
)

// A shop has its own tables. For simplicity they include the books of its payment provider.
type shop struct {
	db *sql.DB

	mu    sync.Mutex
	calls map[string]int // calls of the provider, by idempotency key
}

func openShop(ctx context.Context, file string) (*shop, error) {
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(file),
		RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)"}
	db, err := sql.Open("sqlite3", dsn.String())
	if err != nil {
		return nil, err
	}
	_, err = db.ExecContext(ctx, `
		CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, cents INTEGER, pieces INTEGER);
		INSERT INTO stock VALUES ('gopher', 1900, 1000), ('mug', 700, 1000) ON CONFLICT DO NOTHING;
		CREATE TABLE IF NOT EXISTS sales (number TEXT, item TEXT, cents INTEGER, parcel TEXT);
		CREATE TABLE IF NOT EXISTS payments (idempotency_key TEXT PRIMARY KEY, number TEXT, cents INTEGER)`)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &shop{db: db, calls: map[string]int{}}, nil
}

// reserve takes an order's items from the stock and returns their price.
func (s *shop) reserve(ctx context.Context, tx *sql.Tx, o Order) (total int, err error) {
	for _, item := range o.Items {
		var cents int
		err := tx.QueryRowContext(ctx, "UPDATE stock SET pieces = pieces - 1 WHERE item = ? AND pieces > 0 RETURNING cents", item).Scan(&cents)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, pgqrs.Permanent(fmt.Errorf("%s is out of stock", item)) // trying again would not help
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO sales VALUES (?, ?, ?, NULL)", o.Number, item, cents)
		}
		if err != nil {
			return 0, err
		}
		total += cents
	}
	return total, nil
}

// release returns items that were not handed over to the stock. It returns what they would have
// cost.
func (s *shop) release(ctx context.Context, tx *sql.Tx, number string) (cents int, err error) {
	const unshipped = " FROM sales s WHERE s.number = ? AND s.parcel IS NULL"
	_, err = tx.ExecContext(ctx, "UPDATE stock SET pieces = pieces + (SELECT count(*)"+unshipped+" AND s.item = stock.item)", number)
	if err == nil {
		err = tx.QueryRowContext(ctx, "SELECT COALESCE(sum(cents), 0)"+unshipped, number).Scan(&cents)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, "DELETE FROM sales WHERE number = ? AND parcel IS NULL", number)
	}
	return cents, err
}

// handOver records an item's parcel.
func (s *shop) handOver(ctx context.Context, tx *sql.Tx, p Parcel, parcel string) (string, error) {
	err := tx.QueryRowContext(ctx, "UPDATE sales SET parcel = ? WHERE number = ? AND item = ? AND parcel IS NULL RETURNING parcel", parcel, p.Order, p.Item).Scan(&parcel)
	if errors.Is(err, sql.ErrNoRows) {
		err = pgqrs.Permanent(fmt.Errorf("%s of order %s is not reserved", p.Item, p.Order))
	}
	return parcel, err
}

// charge makes the provider charge an order, which fails twice. A step that calls the outside world
// can run again. So it passes a key by which the provider recognizes an earlier payment.
func (s *shop) charge(ctx context.Context, number string, cents int) (payment string, err error) {
	key := "charge-" + number
	if s.call(key) <= 2 {
		return "", errors.New("the payment provider does not answer")
	}
	_, err = s.db.ExecContext(ctx, "INSERT INTO payments VALUES (?, ?, ?) ON CONFLICT DO NOTHING", key, number, cents)
	return key, err
}

// refund makes the provider pay back what was paid, up to the given cents.
func (s *shop) refund(ctx context.Context, number string, cents int) error {
	key := "refund-" + number
	s.call(key)
	_, err := s.db.ExecContext(ctx, `
		INSERT INTO payments SELECT ?, number, -min(?, sum(cents)) FROM payments WHERE number = ? GROUP BY number
		ON CONFLICT DO NOTHING`, key, cents, number)
	return err
}

// call counts a call of the provider.
func (s *shop) call(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[key]++
	return s.calls[key]
}

// books are the shop's figures for an order.
type books struct{ received, refunded, reserved, shipped int }

func (s *shop) books(ctx context.Context, number string) (b books, err error) {
	return b, cmp.Or(
		s.db.QueryRowContext(ctx, `
			SELECT COALESCE(sum(cents) FILTER (WHERE cents > 0), 0), COALESCE(-sum(cents) FILTER (WHERE cents < 0), 0)
			FROM payments WHERE number = ?`, number).Scan(&b.received, &b.refunded),
		s.db.QueryRowContext(ctx, "SELECT count(*) - count(parcel), count(parcel) FROM sales WHERE number = ?", number).Scan(&b.reserved, &b.shipped))
}
