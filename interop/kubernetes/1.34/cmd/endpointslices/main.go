// Kubernetes' EndpointSlice controller by itself: what kube-controller-manager with
// --controllers=endpointslice-controller runs, without compiling the forty others.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
)

// As kube-controller-manager's defaults.
const (
	endpointsPerSlice = 100
	workers           = 5
	resync            = 12 * time.Hour
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: endpointslices KUBECONFIG")
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	factory := informers.NewSharedInformerFactory(client, resync)
	core := factory.Core().V1()
	slices := factory.Discovery().V1().EndpointSlices()
	controller := endpointslice.NewController(
		ctx, core.Pods(), core.Services(), core.Nodes(), slices, endpointsPerSlice, client, 0)
	factory.Start(ctx.Done())
	controller.Run(ctx, workers)
}
