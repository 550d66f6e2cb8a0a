//go:build !unix

package main

import "os/exec"

// inGroup leaves a command as it is.
func inGroup(*exec.Cmd) {}
