// Command declarations prints everything that a move of code between files and packages must keep.
// It prints the top-level declarations of packages, sorted, and the constant texts of their SQL
// statements, sorted by tag.
//
//	go run ./scripts/declarations [-renames] DIRECTORY...
//
// With -renames it replaces every unexported name and leaves comments out. Two commits that differ
// only in such names then have the same output.
//
// The script moves.sh compares the output of two commits.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/printer"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	renames := flag.Bool("renames", false, "replace unexported names and leave comments out")
	flag.Parse()
	var declarations []string
	statements := map[string]bool{}
	for _, dir := range flag.Args() {
		p, err := load(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "declarations:", err)
			os.Exit(1)
		}
		p.renames = *renames
		declarations = append(declarations, p.declarations()...)
		for _, text := range p.statements() {
			statements[text] = true
		}
	}
	slices.Sort(declarations)
	for _, text := range slices.Concat(declarations, slices.Sorted(maps.Keys(statements))) {
		fmt.Println(text)
	}
}

// A source has the files of a directory, tests included.
type source struct {
	fset    *token.FileSet
	files   []*ast.File
	renames bool
}

func load(dir string) (source, error) {
	p := source{fset: token.NewFileSet()}
	names, err := fs.Glob(os.DirFS(dir), "*.go")
	if err != nil {
		return p, err
	}
	for _, name := range names {
		file, err := parser.ParseFile(p.fset, filepath.Join(dir, name), nil, parser.ParseComments)
		if err != nil {
			return p, err
		}
		p.files = append(p.files, file)
	}
	return p, nil
}

// declarations returns each function and each specification of a type, constant or variable as
// text.
func (p source) declarations() []string {
	var list []string
	for _, file := range p.files {
		for _, decl := range file.Decls {
			group, ok := decl.(*ast.GenDecl)
			if !ok {
				list = append(list, p.print(file, decl))
				continue
			}
			if group.Tok == token.IMPORT {
				continue
			}
			for _, spec := range group.Specs {
				list = append(list, group.Tok.String()+" "+p.print(file, spec))
			}
		}
	}
	return list
}

func (p source) print(file *ast.File, node ast.Node) string {
	if p.renames {
		return p.printUnnamed(node)
	}
	var b bytes.Buffer
	commented := &printer.CommentedNode{Node: node, Comments: file.Comments}
	if err := printer.Fprint(&b, p.fset, commented); err != nil {
		return err.Error()
	}
	return b.String()
}

// printUnnamed prints a declaration on one line, without comments and unexported names. The
// statements are compared separately.
func (p source) printUnnamed(node ast.Node) string {
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			if !n.IsExported() {
				n.Name = "x"
			}
		case *ast.FuncDecl:
			n.Doc = nil
		case *ast.TypeSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.ValueSpec:
			n.Doc, n.Comment = nil, nil
		case *ast.Field:
			n.Doc, n.Comment = nil, nil
		}
		return true
	})
	var b bytes.Buffer
	if err := printer.Fprint(&b, p.fset, node); err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// statements returns the constant strings that begin with a statement's tag.
func (p source) statements() []string {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{
		Importer: importer.ForCompiler(p.fset, "source", nil),
		Error:    func(error) {}, // a missing import hides no constant
	}
	var sources []*ast.File
	for _, file := range p.files {
		if !strings.HasSuffix(p.fset.Position(file.Pos()).Filename, "_test.go") {
			sources = append(sources, file)
		}
	}
	_, _ = config.Check("", p.fset, sources, info)
	var list []string
	for _, value := range info.Types {
		if value.Value == nil || value.Value.Kind() != constant.String {
			continue
		}
		if text := constant.StringVal(value.Value); strings.HasPrefix(text, "/* pgqrs:") {
			list = append(list, text)
		}
	}
	return list
}
