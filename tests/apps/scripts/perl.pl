use strict; use warnings; $| = 1;
use POSIX qw(:sys_wait_h); use IO::Handle; use Socket; use Time::HiRes qw(usleep alarm);
pipe(my $r, my $w) or die; my $pid = fork // die;
if (!$pid) { close $r; print $w "from child $_\n" for 1 .. 3; exit 4 }
close $w; print while <$r>; waitpid $pid, 0; print "status ", $? >> 8, "\n";
my @pids; for my $i (1 .. 10) { my $p = fork // die; if (!$p) { usleep 1000 * (10 - $i); exit $i } push @pids, $p }
my $sum = 0; for (@pids) { waitpid $_, 0; $sum += $? >> 8 } print "sum $sum\n";
open my $out, '|-', 'sort | uniq -c' or die; print $out "$_\n" for qw(b a b c a b); close $out; print "closed $?\n";
open my $in, '-|', 'sh', '-c', 'echo read; exit 2' or die; print <$in>; close $in; print "exit ", $? >> 8, "\n";
my $text = `echo backticks; kill -TERM \$\$`; print $text, "signal ", $? & 127, "\n";
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; $a->autoflush(1); $b->autoflush(1);
if (!fork) { close $a; while (<$b>) { print $b scalar reverse($_) =~ s/^\n//r, "\n" } exit 0 }
close $b; for (qw(abc level xyz)) { print $a "$_\n"; print scalar <$a> } close $a; wait;
my $caught = 0; local $SIG{USR1} = sub { $caught++ }; kill USR1 => $$ for 1 .. 5; print "caught $caught\n";
eval { local $SIG{ALRM} = sub { die "alarm\n" }; alarm 0.02; select undef, undef, undef, 5; }; print "died: $@";
local $SIG{CHLD} = 'IGNORE'; my $gone = fork; exit 0 unless $gone; 1 while waitpid($gone, WNOHANG) == 0; print "ignored child ", waitpid($gone, 0), "\n";
my %count; $count{length $_}++ for map { "x" x ($_ % 7) } 1 .. 1000; print join(",", map { "$_=$count{$_}" } sort keys %count), "\n";
open my $f, '+>', 'file' or die; print $f "line $_\n" for 1 .. 100; seek $f, 0, 0; my @lines = <$f>; print scalar(@lines), " ", -s 'file', "\n";
rename 'file', 'other'; mkdir 'dir'; opendir my $d, '.'; print join(" ", sort grep !/^\./, readdir $d), "\n"; unlink 'other'; print -e 'other' ? "there" : "gone", "\n";
printf "%s %s\n", join(":", (stat '/dev/null')[6]), (getpwuid 0)[0]; system 'exit 3'; print $? >> 8, "\n"; exit 6;
