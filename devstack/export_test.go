package devstack

import "context"

// Abandon lets go of the cluster without stopping it, as the death of this process would.
func Abandon(p *Postgres) { _ = p.lock.Close() }

// ProcessID is that of the server.
func (p *Postgres) ProcessID() int { return p.process.cmd.Process.Pid }

// DumpArgs are the arguments of pg_dump.
func (p *Postgres) DumpArgs(ctx context.Context, database string) []string {
	return p.dumpCommand(ctx, database).Args
}

// CommandLine is that of the server.
func (p *Postgres) CommandLine() string { return commandLine(p.ProcessID()) }
