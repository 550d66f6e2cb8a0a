package main

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

func TestTheREADMEHasThisProgram(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(source), "package main\n")
	if !strings.Contains(string(page), "```go\npackage main\n"+program+"```\n") {
		t.Error("the README has another program")
	}
}

func TestItHandlesTheMessageUntilCtrlC(t *testing.T) {
	t.Chdir(t.TempDir())
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout := os.Stdout
	os.Stdout = write
	defer func() { os.Stdout = stdout }()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		main()
	}()
	line, err := bufio.NewReader(read).ReadString('\n')
	if err != nil || line != "sending to ada@example.com\n" {
		t.Errorf("it prints %q, %v", line, err)
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(os.Interrupt)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-ended
}
