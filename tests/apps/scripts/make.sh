# make -j2 over small C files, rebuilt after a change, and failing where it must.
set -e
for i in $(seq 1 8); do echo "int f$i(void) { return $i; }" >f$i.c; done
{ for i in $(seq 1 8); do echo "int f$i(void);"; done; echo '#include <stdio.h>'; echo "int main(void) { printf(\"%d\\n\", $(seq -s '+' -f 'f%.0f()' 1 8)); return 0; }"; } >main.c
cat >Makefile <<'END'
OBJECTS = main.o $(patsubst %,f%.o,1 2 3 4 5 6 7 8)
program: $(OBJECTS)
	@$(CC) -o $@ $(OBJECTS)
%.o: %.c
	@$(CC) -O1 -c $< -o $@ && echo $@ >>built
parallel: p1 p2 p3 p4
p%:
	@sleep 0.0$*; echo $@
fails:
	@exit 3
sub:
	@$(MAKE) --no-print-directory -C dir
END
make -s -j2 program; ./program; sort built
rm built; sleep 0.05; touch -d '+1 minute' f3.c; make -s -j2 program 2>/dev/null; cat built
make -j4 -s parallel | sort
set +e
make -s fails 2>/dev/null; echo "status $?"; make -s -k fails parallel 2>/dev/null | sort; mkdir dir; echo 'all: ; @echo in dir' >dir/Makefile; make sub
make -s none 2>/dev/null; echo "status $?"
