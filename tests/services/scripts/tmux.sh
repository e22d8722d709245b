# A terminal multiplexer with a shell, vim and less in its windows.
export TERM=screen-256color
cat >vimrc <<'END'
set nocompatible noswapfile viminfo= ruler number
END
seq -f 'line %g' 1 500 >text
t() { timeout 60 tmux -S /tmp/socket -f /dev/null "$@"; }
t new-session -d -s main -x 80 -y 24 'bash --norc --noprofile'
show() { t capture-pane -p -t "$1"; }
sees() { show "$1" | grep -qF -- "$2"; }
gone() { ! t list-windows -t main -F '#{window_name}' | grep -qx "$1"; }
normal() { ! sees main:vim '-- INSERT --'; }
send() { t send-keys -t "$@"; }
# Without noflsh, Linux may drop what the shell writes while a signal character is flushing the output.
send main "stty noflsh; PS1='pro''mpt\$ '" Enter
wait_for prompt sees main 'prompt$'
send main 'clear; echo co""lumns $(tput cols) $(tput lines)' Enter
wait_for size sees main 'columns 80 24'
send main 'sleep 100' Enter
wait_for sleep sh -c 'pgrep -x sleep'
send main C-c
send main 'echo st""atus $?' Enter
wait_for interrupt sees main 'status 130'
send main 'sleep 200' Enter
wait_for sleep sh -c 'pgrep -x sleep'
send main C-z
wait_for stopped sees main 'Stopped'
send main 'kill %1; clear' Enter
t split-window -h -t main 'bash --norc --noprofile'
t list-panes -t main -F '#{pane_index} #{pane_width}x#{pane_height}'
t kill-pane -t main.1
# Not at the prompt: readline gets the size and sets it again, and what comes in between is lost.
send main 'clear; echo lo""oping; until [ "$(tput cols) $(tput lines)" = "100 30" ]; do sleep 0.05; done; echo re""sized' Enter
wait_for loop sees main looping
t resize-window -t main -x 100 -y 30
wait_for resize sees main resized

# vim: insert, search, replace, undo, a filter, a shell, and another window.
t new-window -t main -n vim 'vim -u /tmp/vimrc text'
wait_for vim sees main:vim 'line 20'
send main:vim ':set ff?' Enter
wait_for 'vim reads' sees main:vim 'fileformat=unix'
send main:vim '/line 250' Enter
wait_for search sees main:vim '250,1'
send main:vim 'cw' 'changed' Escape
wait_for change sees main:vim 'changed 250'
wait_for 'normal mode' normal
send main:vim ':%s/line 3\(.\)/LINE \1/g' Enter
wait_for replace sees main:vim 'substitutions'
send main:vim ':1,3!sort -r' Enter
wait_for filter sees main:vim 'line 3'
send main:vim ':split' Enter
send main:vim ':e ++ff=unix other' Enter
send main:vim 'ihello from vim' Escape
wait_for insert sees main:vim 'hello from vim'
wait_for 'normal mode' normal
send main:vim ':wqa' Enter
wait_for 'vim ends' gone vim
cksum text other

# less: pages, search, follow.
t new-window -t main -n less 'less text'
wait_for less sees main:less 'line 3'
send main:less Space
wait_for page sees main:less 'line 45'
send main:less G
wait_for end sees main:less '(END)'
send main:less '?changed' Enter
wait_for search sees main:less 'changed 250'
send main:less F
wait_for follow sees main:less 'Waiting for data'
echo 'appended by another' >>text
wait_for follow sees main:less 'appended by another'
send main:less C-c
wait_for end sees main:less '(END)'
send main:less q
wait_for 'less ends' gone less

# A client of its own in a terminal, which is detached; then the server ends.
mkfifo keys
exec 9<>keys
script -qec "tmux -S /tmp/socket attach -t main" /dev/null <keys >attached 2>&1 &
client=$!
wait_for client sh -c 'tmux -S /tmp/socket list-clients | grep -q main'
t detach-client -s main
wait $client
echo "client ended with $?"
grep -ac 'detached (from session main)' attached
t list-windows -t main -F '#{window_index} #{window_name}' | sed 's/^0 .*/0/'
t kill-server
wait_for 'server ends' sh -c '! tmux -S /tmp/socket has-session'
echo ended
