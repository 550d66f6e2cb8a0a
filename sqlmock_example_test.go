package pgqrs_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/pgqrs/pgqrs-go"
)

// This file shows how to unit-test an application that uses pgqrs with sqlmock. An Enqueue is one
// Query, and its tag finds it.

// A Purchase is an order that customers post to the shop.
type Purchase struct {
	Item  string
	Count int
}

// A Shop is the application. It takes orders over HTTP, and its warehouse packs them from a queue.
type Shop struct {
	db      *sql.DB
	packing *pgqrs.Queue[Purchase]
}

// NewShop returns a shop on a database. It does no I/O.
func NewShop(db *sql.DB) *Shop {
	store := pgqrs.New(db, pgqrs.Postgres)
	return &Shop{db: db, packing: pgqrs.NewQueue[Purchase](store, "packing")}
}

// ServeHTTP accepts an order.
func (s *Shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var order Purchase
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
		http.Error(w, "that is no order", http.StatusBadRequest)
		return
	}
	id, err := s.place(r, order)
	if err != nil {
		http.Error(w, "try again later", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "order %d will be packed\n", id)
}

// place stores an order and enqueues its packing in one transaction.
func (s *Shop) place(r *http.Request, order Purchase) (int64, error) {
	tx, err := s.db.BeginTx(r.Context(), nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() // does nothing after Commit

	var id int64
	const insert = "INSERT INTO orders (item, count) VALUES ($1, $2) RETURNING id"
	if err := tx.QueryRowContext(r.Context(), insert, order.Item, order.Count).Scan(&id); err != nil {
		return 0, err
	}
	if _, err := s.packing.WithTx(tx).Enqueue(r.Context(), order); err != nil {
		return 0, err
	}
	return id, tx.Commit()
}

// post sends an order to the shop and returns its answer.
func post(shop http.Handler, order string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	shop.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(order)))
	return answer
}

// oneRow returns the answer of a statement that returns an id.
func oneRow(id int64) *sqlmock.Rows { return sqlmock.NewRows([]string{"id"}).AddRow(id) }

func TestShopStoresAndEnqueuesInOneTransaction(t *testing.T) {
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	mock.ExpectBegin()
	mock.ExpectQuery("INSERT INTO orders").WithArgs("teapot", 2).WillReturnRows(oneRow(1))
	mock.ExpectQuery("pgqrs:message.enqueue").WillReturnRows(oneRow(7))
	mock.ExpectCommit()

	if answer := post(NewShop(db), `{"Item": "teapot", "Count": 2}`); answer.Code != http.StatusCreated {
		t.Errorf("the shop answered %d %s", answer.Code, answer.Body)
	}
	if err := mock.ExpectationsWereMet(); err != nil {
		t.Error(err)
	}
}

func TestShopKeepsNoOrderThatItCannotEnqueue(t *testing.T) {
	db, mock, err := sqlmock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	mock.ExpectBegin()
	mock.ExpectQuery("INSERT INTO orders").WithArgs("teapot", 2).WillReturnRows(oneRow(1))
	mock.ExpectQuery("pgqrs:message.enqueue").WillReturnError(errors.New("connection reset"))
	mock.ExpectRollback()

	if answer := post(NewShop(db), `{"Item": "teapot", "Count": 2}`); answer.Code != http.StatusInternalServerError {
		t.Errorf("the shop answered %d %s", answer.Code, answer.Body)
	}
	if err := mock.ExpectationsWereMet(); err != nil {
		t.Error(err)
	}
}

// A unit test of an application that enqueues needs sqlmock, and one expectation for each Enqueue.
func Example_unitTest() {
	db, mock, err := sqlmock.New()
	if err != nil {
		panic(err)
	}
	mock.ExpectBegin()
	mock.ExpectQuery("INSERT INTO orders").WillReturnRows(oneRow(1))
	mock.ExpectQuery("pgqrs:message.enqueue").WillReturnRows(oneRow(7))
	mock.ExpectCommit()

	answer := post(NewShop(db), `{"Item": "teapot", "Count": 2}`)
	fmt.Print(answer.Code, " ", answer.Body)
	fmt.Println("all expectations met:", mock.ExpectationsWereMet() == nil)
	// Output:
	// 201 order 1 will be packed
	// all expectations met: true
}
