//go:build tools

// Package tools names the program of another module that is built here.
package tools

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
