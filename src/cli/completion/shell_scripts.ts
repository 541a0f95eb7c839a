/**
 * What makes a shell ask us. The shells only hand on what was typed and show what comes back; what may stand where is
 * decided in one place (`complete_words.ts`). Each line of the answer is a word, a tab and what it means; the last says
 * whether paths are wanted.
 */
export const SHELL_SCRIPTS = {
  bash: `# bash completion of bootshim; to load it: source <(bootshim completion bash)
_bootshim() {
  # Bash takes words apart at colons and equals signs, which references and options have.
  local line=\${COMP_LINE:0:COMP_POINT} words lines prefix
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  local current=\${words[\${#words[@]}-1]}
  mapfile -t lines < <("\${words[0]}" completion candidates -- "\${words[@]:1}" 2>/dev/null)
  [[ \${#lines[@]} -gt 0 ]] || return 0
  local paths=\${lines[\${#lines[@]}-1]}
  unset "lines[\${#lines[@]}-1]"
  prefix=\${current%"\${current##*[=:]}"}
  COMPREPLY=("\${lines[@]%%$'\\t'*}")
  COMPREPLY=("\${COMPREPLY[@]#"$prefix"}")
  case $paths in
    :files) compopt -o default ;;
    :directories) compopt -o dirnames ;;
  esac
}
complete -F _bootshim bootshim
`,
  zsh: `#compdef bootshim
# zsh completion of bootshim; to load it: source <(bootshim completion zsh), or keep it as _bootshim in a folder of $fpath
_bootshim() {
  local -a lines described
  local each paths
  lines=("\${(@f)$("\${(Q)words[1]}" completion candidates -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
  paths=\${lines[-1]}
  for each in "\${(@)lines[1,-2]}"; do
    described+=("\${\${each%%$'\\t'*}//:/\\\\:}:\${each#*$'\\t'}")
  done
  case $paths in
    :files) _files ;;
    :directories) _files -/ ;;
    *) _describe bootshim described ;;
  esac
}
if [[ \${funcstack[1]} == _bootshim ]]; then _bootshim "$@"; else compdef _bootshim bootshim; fi
`,
  fish: `# fish completion of bootshim; to load it: bootshim completion fish | source
function __bootshim_candidates
  set -l words (commandline -opc) (commandline -ct)
  set -l lines ($words[1] completion candidates -- $words[2..-1] 2>/dev/null)
  switch "$lines[-1]"
    case :files
      __fish_complete_path (commandline -ct)
    case :directories
      __fish_complete_directories (commandline -ct)
    case :none
      printf '%s\\n' $lines[1..-2]
  end
end
complete -c bootshim -f -a '(__bootshim_candidates)'
`,
} as const;
