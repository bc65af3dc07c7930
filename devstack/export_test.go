package devstack

// Abandon lets go of the cluster without stopping it, as the death of this process would.
func Abandon(p *Postgres) { _ = p.lock.Close() }

// ProcessID is that of the server.
func (p *Postgres) ProcessID() int { return p.process.cmd.Process.Pid }
