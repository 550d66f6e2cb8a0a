//go:build unix

package crash_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// A disk is a file system for SQLite that keeps what would be left after a loss of power:
// everything that was synced, and any part of later writes. It passes every call except syncs on to
// the real file system.
type disk struct {
	vfs.VFS
	mu    sync.Mutex
	files map[string]*platter // by path
}

// A platter has the safe content of one file, and the writes since then.
type platter struct {
	safe   []byte
	writes []change
}

// A change is a write, or a truncation if it has no data.
type change struct {
	at   int64
	data []byte
}

// sector is the unit in which a disk writes.
const sector = 512

func newDisk() *disk { return &disk{VFS: vfs.Find(""), files: map[string]*platter{}} }

func (d *disk) OpenFilename(filename *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, flags, err := vfsutil.WrapOpenFilename(d.VFS, filename, flags)
	if err != nil || flags&(vfs.OPEN_MAIN_DB|vfs.OPEN_WAL) == 0 {
		return file, flags, err
	}
	name := filename.String()
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.files[name]
	if p == nil {
		safe, err := os.ReadFile(name)
		if err != nil {
			file.Close()
			return nil, flags, err
		}
		p = &platter{safe: safe}
		d.files[name] = p
	}
	return &diskFile{file, d, p}, flags, nil
}

// Delete forgets a file. The last connection to close deletes the WAL, and a later one makes
// another of the same name.
func (d *disk) Delete(name string, syncDir bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, name)
	return d.VFS.Delete(name, syncDir)
}

// A diskFile is an open file of one connection.
type diskFile struct {
	vfs.File
	disk *disk
	*platter
}

func (f *diskFile) WriteAt(data []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	n, err := f.File.WriteAt(data, at)
	f.writes = append(f.writes, change{at, slices.Clone(data[:n])})
	return n, err
}

func (f *diskFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.writes = append(f.writes, change{at: size})
	return f.File.Truncate(size)
}

func (f *diskFile) Sync(vfs.SyncFlag) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	for _, w := range f.writes {
		f.safe = w.apply(f.safe)
	}
	f.writes = nil
	return nil
}

// SharedMemory returns the real file's shared memory.
func (f *diskFile) SharedMemory() vfs.SharedMemory {
	if real, ok := f.File.(vfs.FileSharedMemory); ok {
		return real.SharedMemory()
	}
	return nil
}

func (w change) apply(image []byte) []byte {
	if w.data == nil {
		return append(image, make([]byte, max(0, int(w.at)-len(image)))...)[:w.at]
	}
	image = append(image, make([]byte, max(0, int(w.at)+len(w.data)-len(image)))...)
	copy(image[w.at:], w.data)
	return image
}

// fail writes to another directory what a loss of power would leave now. Sectors that were not
// synced may have been written or not.
func (d *disk) fail(random *rand.Rand, dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path, p := range d.files {
		image := slices.Clone(p.safe)
		kept := random.IntN(5) // of four sectors, on average
		for _, w := range p.writes {
			if w.data == nil && random.IntN(4) < kept {
				image = w.apply(image)
			}
			for at := 0; at < len(w.data); at += sector {
				if random.IntN(4) < kept {
					image = change{w.at + int64(at), w.data[at:min(at+sector, len(w.data))]}.apply(image)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), image, 0o644); err != nil {
			return err
		}
	}
	return nil
}
