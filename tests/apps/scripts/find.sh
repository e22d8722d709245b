# find and xargs over a tree.
set -e
export LC_ALL=C
for d in a b c; do for e in 1 2 3; do mkdir -p "t/$d/$e"; for f in x.c y.h z.txt; do echo "$d$e$f" >"t/$d/$e/$f"; done; done; done
truncate -s 100k t/big; ln -s ../a t/b/link; touch -d 2000-01-01 t/a/1/x.c
find t -type d | sort
find t -name '*.c' -newer t/a/1/x.c | sort | wc -l
find t -size +50k; find t -type l -printf '%p -> %l\n'; find -L t/b/link/ -name y.h | sort
find t -name '*.h' -exec cat {} + | sort | md5sum
find t -name 'z*' -exec sh -c 'echo "$(wc -c <"$1") $1"' _ {} \; | sort | head -n 3
find t -type f ! -name big -print0 | xargs -0 -n 4 -P 2 cat | sort | uniq | wc -l
find t -path '*/2/*' -prune -o -type f -print | wc -l
find t -empty; find t -perm -111 -type f; find t -maxdepth 1 | sort
find t -name '*.txt' -delete; find t -type f | wc -l
find t -type f -mmin -60 | wc -l; find t/none 2>/dev/null || echo "status $?"
